"""Which split a question's content belongs to: a stable hash, so splits never share a question."""

from hashlib import sha256

SPLITS = ("train", "calibration", "test")
SHARES = {"train": 0.7, "calibration": 0.15, "test": 0.15}


def split_of(key: str) -> str:
    """The split that a question's content belongs to.

    >>> split_of("math|12 +0:30")
    'train'
    """
    share = int(sha256(key.encode()).hexdigest()[:12], 16) / 16**12
    for split, size in SHARES.items():
        share -= size
        if share < 0:
            return split
    return SPLITS[-1]
