"""Archives that fixtures are made of. The same input gives the same bytes, so that a digest can be asked for early."""

import gzip
import io
import random
import tarfile
import zipfile

EPOCH = (2024, 1, 2, 3, 4, 6)


def noise(size, seed):
    """`size` bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def tar_gz(members):
    """A .tar.gz of {name: content}."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            content = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if content.startswith(b"#!") else 0o644
            entry.mtime = 1704164646
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), compresslevel=6, mtime=0)


def zipped(members):
    """A .zip of {name: content}."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return out.getvalue()
