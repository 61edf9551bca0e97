# Reads the part of #cloud-config that test machines need, and prints shell calls for user-data.sh:
#
#   hostname: name
#   ssh_authorized_keys: [list of keys]
#   write_files: list of path, content, permissions, owner, encoding, append
#   runcmd: list of commands, each a string or a list of words
#
# Of YAML it knows block lists and maps, [flow, lists], plain and quoted scalars, | and > blocks, and comments.

{ lines[NR] = $0 }

END {
    for (at = 1; at <= NR; ) {
        line = lines[at]
        if (line ~ /^[a-z_]+:/) {
            name = substr(line, 1, index(line, ":") - 1)
            rest = trim(substr(line, index(line, ":") + 1))
            at++
            section(name, rest)
        } else {
            at++
        }
    }
}

function section(name, rest) {
    if (name == "hostname") print "set_hostname " shell(scalar(rest, 0))
    else if (name == "ssh_authorized_keys") each_item(name, rest)
    else if (name == "runcmd") each_item(name, rest)
    else if (name == "write_files") each_item(name, rest)
    else {
        print "ignored " shell(name)
        skip_deeper(0)
    }
}

# Items may stand at the indentation of their key.
function each_item(name, rest,    count, i, words, column, item) {
    if (rest ~ /^\[/) {
        count = flow(rest, words)
        for (i = 1; i <= count; i++) take(name, words[i], 0)
        return
    }
    while (at <= NR) {
        if (blank(lines[at])) { at++; continue }
        if (lines[at] !~ /^ *- */) return
        match(lines[at], /^ *- */)
        column = RLENGTH
        item = substr(lines[at], column + 1)
        at++
        take(name, item, column)
    }
}

# One list item; `column` is where its text begins.
function take(name, item, column,    count, i, words, command) {
    if (name == "ssh_authorized_keys") {
        print "add_key " shell(scalar(item, column - 1))
    } else if (name == "runcmd" && item ~ /^\[/) {
        count = flow(item, words)
        for (i = 1; i <= count; i++) command = command (i > 1 ? " " : "") shell(words[i])
        print "add_command " shell(command)
    } else if (name == "runcmd") {
        print "add_command " shell(scalar(item, column - 1))
    } else {
        file_item(item, column)
    }
}

# A map of write_files: its first key is on the dash's line, the others are below it.
function file_item(item, column,    key, field) {
    while (1) {
        key = substr(item, 1, index(item, ":") - 1)
        field[key] = scalar(trim(substr(item, index(item, ":") + 1)), column)
        while (at <= NR && blank(lines[at])) at++
        if (at > NR || indent(lines[at]) != column || lines[at] ~ /^ *- /) break
        item = substr(lines[at], column + 1)
        at++
    }
    print "write_file " shell(field["path"]) " " shell(field["content"]) " " shell(field["permissions"]) \
        " " shell(field["owner"]) " " shell(field["encoding"]) " " shell(field["append"])
}

# A scalar whose text begins with `text` on a line indented by `parent`; reads on if it is a block.
function scalar(text, parent) {
    if (text ~ /^[|>][-+]? *$/) return block(text, parent)
    if (text ~ /^"/) {
        sub(/" *(#.*)?$/, "", text)
        text = substr(text, 2)
        gsub(/\\\\/, "\001", text)
        gsub(/\\n/, "\n", text)
        gsub(/\\t/, "\t", text)
        gsub(/\\"/, "\"", text)
        gsub(/\001/, "\\", text)
        return text
    }
    if (text ~ /^'/) {
        sub(/' *(#.*)?$/, "", text)
        text = substr(text, 2)
        gsub(/''/, "'", text)
        return text
    }
    sub(/ +#.*$/, "", text)
    return trim(text)
}

function block(style, parent,    text, base, line, separator) {
    base = -1
    separator = style ~ /^>/ ? " " : "\n"
    for (; at <= NR; at++) {
        line = lines[at]
        if (line !~ /^ *$/ && indent(line) <= parent) break
        if (base < 0 && line !~ /^ *$/) base = indent(line)
        text = text substr(line, base + 1) separator
    }
    # Blank lines before the next key belong to nobody.
    while (text ~ /[ \n]$/) text = substr(text, 1, length(text) - 1)
    return style ~ /-/ ? text : text "\n"
}

function flow(text, words,    count, part) {
    sub(/^\[ */, "", text)
    count = 0
    while (match(text, /^("([^"\\]|\\.)*"|'[^']*'|[^],]+) *,? */)) {
        part = substr(text, 1, RLENGTH)
        text = substr(text, RLENGTH + 1)
        sub(/ *,? *$/, "", part)
        words[++count] = scalar(part, 0)
    }
    return count
}

function skip_deeper(parent) {
    while (at <= NR && (blank(lines[at]) || lines[at] ~ /^ *-/ || indent(lines[at]) > parent)) at++
}

function indent(line) {
    match(line, /^ */)
    return RLENGTH
}

function blank(line) {
    return line ~ /^ *(#.*)?$/
}

function trim(text) {
    gsub(/^ +| +$/, "", text)
    return text
}

function shell(text) {
    gsub(/'/, "'\\''", text)
    return "'" text "'"
}
