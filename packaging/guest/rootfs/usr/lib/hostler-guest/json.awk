# Flattens a JSON document: one line `path<TAB>value` for each scalar, path as key/key/index. A `/` in a key
# becomes `_`, so a user's key can never look like a path. A value of several lines is as many output lines.
# Exits with 1 if the text is no JSON.

BEGIN {
    TOKEN = "^[ \t\r\n]*(\"([^\"\\\\]|\\\\.)*\"|[][{}:,]|[^][{}:,\" \t\r\n]+)"
    while ((getline line) > 0) text = text line "\n"
    next_token()
    walk("")
}

function next_token() {
    if (!match(text, TOKEN)) exit 1
    token = substr(text, 1, RLENGTH)
    text = substr(text, RLENGTH + 1)
    sub(/^[ \t\r\n]+/, "", token)
}

# The current token is the first one of the value, and afterwards its last.
function walk(path,    key, index_) {
    if (token == "{") {
        for (next_token(); token != "}"; next_token()) {
            if (token == ",") continue
            if (token !~ /^"/) exit 1
            key = unquote(token)
            gsub(/[\/\t\n]/, "_", key)
            next_token()
            if (token != ":") exit 1
            next_token()
            walk(path == "" ? key : path "/" key)
        }
    } else if (token == "[") {
        index_ = 0
        for (next_token(); token != "]"; next_token())
            if (token != ",") walk(path "/" index_++)
    } else if (token ~ /^[]}:,]$/) {
        exit 1
    } else {
        emit(path, token ~ /^"/ ? unquote(token) : token)
    }
}

function emit(path, value,    count, i, lines) {
    count = split(value, lines, "\n")
    for (i = 1; i <= count; i++)
        if (lines[i] != "") print path "\t" lines[i]
}

function unquote(quoted,    inner, out, at, letter) {
    inner = substr(quoted, 2, length(quoted) - 2)
    while ((at = index(inner, "\\")) > 0) {
        out = out substr(inner, 1, at - 1)
        letter = substr(inner, at + 1, 1)
        if (letter == "u") {
            out = out utf8(hexadecimal(substr(inner, at + 2, 4)))
            inner = substr(inner, at + 6)
        } else {
            out = out escaped(letter)
            inner = substr(inner, at + 2)
        }
    }
    return out inner
}

function escaped(letter) {
    if (letter == "n") return "\n"
    if (letter == "t") return " "
    if (letter ~ /[rbf]/) return ""
    return letter
}

function hexadecimal(digits,    i, number) {
    for (i = 1; i <= length(digits); i++)
        number = number * 16 + index("0123456789abcdef", tolower(substr(digits, i, 1))) - 1
    return number
}

# Half of a surrogate pair becomes a question mark: names and keys, all that is read here, do without.
function utf8(code) {
    if (code >= 55296 && code <= 57343) return "?"
    if (code < 128) return sprintf("%c", code)
    if (code < 2048) return byte(192 + code / 64) byte(128 + code % 64)
    return byte(224 + code / 4096) byte(128 + code / 64 % 64) byte(128 + code % 64)
}

function byte(number) {
    return sprintf("%c", int(number))
}
