"""Files that hold secrets: mode 0600 from their first byte, and either the old content or the new, never a half."""

import os
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, durable on return. Its folder is made (0700) if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())
    temporary.replace(path)
