"""Squashfs images: what an earlier one gives, what is packed together, and what no image can hold.

That the kernel and unsquashfs read them as the tree they were made from is `tests/integration/images`' business.
"""

from __future__ import annotations

import os
import random
from hashlib import sha256
from pathlib import Path

import pytest

from koguma.images.errors import CorruptError, TreeError
from koguma.images.export import attributes_lost
from koguma.images.objects import BLOB, TREE
from koguma.images.repository import Repository
from koguma.images.rootimages import donor_of, kept_image
from koguma.images.squashfs import contents as contents_module
from koguma.images.squashfs.contents import units_of
from koguma.images.squashfs.donors import SLAB_BLOCKS, Donor, encode_note, note_path
from koguma.images.squashfs.image import write_image
from koguma.images.squashfs.layout import BLOCK_BYTES
from koguma.images.trees import DIRECTORY, FILE, Entry, encode, encode_root, read_root
from tests.unit.images.making import make_bootable_tree, make_tree

DIGEST = "08e365483087d4002673dbf81b3c4c2e5de2c02a9f8417e0ded8a62190f0f224"
LARGE = SLAB_BLOCKS * BLOCK_BYTES * 9 + 1234
"""More than is read at once."""


def _files(seed: int) -> dict[str, str | bytes]:
    source = random.Random(seed)
    files: dict[str, str | bytes] = {
        f"usr/share/{number % 7}/{number}": source.randbytes(source.randint(0, 9000)) for number in range(300)
    }
    files["lib/one-block"] = source.randbytes(BLOCK_BYTES)
    files["lib/holes"] = bytes(3 * BLOCK_BYTES) + source.randbytes(BLOCK_BYTES + 5) + bytes(2 * BLOCK_BYTES)
    files["lib/large"] = source.randbytes(1000) * (LARGE // 1000)
    return files


def _image(repository: Repository, revision: str, path: Path, donor: Path | None = None) -> bytes:
    root = repository.root(repository.resolve(revision))
    note_path(path).write_bytes(encode_note(write_image(repository.objects, root, path, donor).packed))
    return path.read_bytes()


@pytest.fixture
def two_images(repository: Repository, tmp_path: Path) -> tuple[Path, bytes]:
    """An image of `main~1`, and the bytes of one of `main` made without it."""
    files = _files(1)
    repository.commit_tree(make_tree(tmp_path / "tree", files), "main", "first")
    files["usr/share/3/another"] = b"new"
    files["usr/share/5/12"] = b"changed"
    repository.commit_tree(make_tree(tmp_path / "tree", files), "main", "second")
    _image(repository, "main~1", tmp_path / "first.squashfs")
    return tmp_path / "first.squashfs", _image(repository, "main", tmp_path / "alone.squashfs")


def test_the_bytes_of_an_image_stay_the_same_from_release_to_release(repository: Repository, tmp_path: Path) -> None:
    """Kept images and exports of one tree are taken for the same. A new zstd may change them, and this digest."""
    source = random.Random(3)
    contents = {b"%d" % number: source.randbytes(number * 70 % 9000) for number in range(300)}
    contents |= {b"large": source.randbytes(1000) * 3000, b"zeros": bytes(2 * BLOCK_BYTES), b"empty": b""}
    with repository.objects.writing() as writer:
        for content in contents.values():
            writer.add(BLOB, content)
        entries = [_entry(name, content) for name, content in contents.items()]
        below = Entry(b"below", DIRECTORY, 0o755, 0, 7, digest=writer.add(TREE, encode(entries[:200])))
        root = Entry(b"", DIRECTORY, 0o755, 0, 0, digest=writer.add(TREE, encode([*entries[200:], below])))
        writer.finish()
    write_image(repository.objects, root, tmp_path / "image.squashfs")

    assert sha256((tmp_path / "image.squashfs").read_bytes()).hexdigest() == DIGEST


def test_an_image_made_with_an_earlier_ones_blocks_is_the_same_and_packs_only_what_is_new(
    repository: Repository, tmp_path: Path, two_images: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    donor, alone = two_images
    packed = []

    def counted(block: bytes) -> tuple[int, bytes]:
        packed.append(len(block))
        return original(block)

    original = contents_module._packed_block
    monkeypatch.setattr(contents_module, "_packed_block", counted)

    assert _image(repository, "main", tmp_path / "with.squashfs", donor) == alone
    assert 0 < sum(packed) <= 6 * BLOCK_BYTES
    assert len(alone) > 10 * BLOCK_BYTES


@pytest.mark.parametrize("place", [150, 0.3, 0.9])
def test_nothing_damaged_is_taken_over(
    repository: Repository, tmp_path: Path, two_images: tuple[Path, bytes], place: float
) -> None:
    donor, alone = two_images
    damaged = bytearray(donor.read_bytes())
    damaged[int(place * len(damaged)) if place < 1 else int(place)] ^= 4
    donor.write_bytes(damaged)

    assert _image(repository, "main", tmp_path / "with.squashfs", donor) == alone


@pytest.mark.parametrize("place", [4, 40, -1])
def test_a_damaged_note_makes_no_donor(two_images: tuple[Path, bytes], place: int) -> None:
    donor, _ = two_images
    with Donor.opened(donor) as opened:
        assert opened is not None
    note = bytearray(note_path(donor).read_bytes())
    note[place] ^= 1
    note_path(donor).write_bytes(note)

    with Donor.opened(donor) as opened:
        assert opened is None
    note_path(donor).write_bytes(b"")
    with Donor.opened(donor) as opened:
        assert opened is None


def test_a_new_file_changes_the_fragments_around_it_and_no_others() -> None:
    source = random.Random(5)
    entries = [_entry(b"%d" % number, source.randbytes(source.randint(1, 9000))) for number in range(2000)]
    before = {unit.key for unit in units_of(entries)}
    changed = []
    for place in range(0, 2000, 100):
        inserted = [*entries[:place], _entry(b"new", b"n" * 8000), *entries[place:]]
        changed.append(len(before - {unit.key for unit in units_of(inserted)}))

    assert all(unit.size <= BLOCK_BYTES for unit in units_of(entries))
    assert len(before) < 1.5 * sum(entry.size for entry in entries) / BLOCK_BYTES
    assert sum(changed) / len(changed) <= 4


def test_an_image_has_nothing_that_an_overlay_above_it_would_obey(repository: Repository, tmp_path: Path) -> None:
    """A tree that was made elsewhere may have what ours do not."""
    marks = ((b"trusted.overlay.opaque", b"y"), (b"user.a", b"1"), (b"user.overlay.redirect", b"/etc"))
    images = []
    for xattrs in (marks, marks[1:2]):
        with repository.objects.writing() as writer:
            below = Entry(b"d", DIRECTORY, 0o755, 0, 0, digest=writer.add(TREE, encode([])), xattrs=xattrs)
            root = below._replace(name=b"", digest=writer.add(TREE, encode([below])))
            tree = writer.add(TREE, encode_root(root))
            writer.finish()
        images.append(tmp_path / tree.hex())
        write_image(repository.objects, read_root(repository.objects.read, tree), images[-1])

    assert images[0].name != images[1].name
    assert images[0].read_bytes() == images[1].read_bytes()


def test_attributes_that_an_image_cannot_hold_are_told_by_path(repository: Repository) -> None:
    acl, other = ((b"system.posix_acl_access", b""),), ((b"com.apple.provenance", b""),)
    held = ((b"security.selinux", b""), (b"trusted.a", b""), (b"user.a", b""))
    entries = [_entry(name, b"")._replace(xattrs=xattrs) for name, xattrs in ((b"a", acl), (b"b", other), (b"c", held))]
    with repository.objects.writing() as writer:
        root = Entry(b"", DIRECTORY, 0o755, 0, 0, digest=writer.add(TREE, encode(entries)))
        writer.finish()

    assert attributes_lost(repository.objects, root) == [b"a", b"b"]
    assert attributes_lost(repository.objects, root._replace(xattrs=acl)) == [b"", b"a", b"b"]


def test_a_content_is_packed_once_however_many_files_have_it() -> None:
    twice = [_entry(b"a", b"1"), _entry(b"b", b"1"), _entry(b"c", bytes(BLOCK_BYTES)), _entry(b"d", bytes(BLOCK_BYTES))]

    assert sorted(unit.size for unit in units_of(twice)) == [1, BLOCK_BYTES]


def test_the_donor_is_the_nearest_ancestors_image_or_the_newest(repository: Repository, tmp_path: Path) -> None:
    tree = make_bootable_tree(tmp_path / "tree")
    commits = []
    for number in range(3):
        make_tree(tree, {"etc/motd": f"{number}\n"})
        commits.append(repository.commit_tree(tree, "main", str(number)).commit)
    other = repository.commit_tree(make_tree(tmp_path / "other", {"a": "b"}), "other", "m").commit
    assert donor_of(repository, commits[2]) is None
    repository.update_labels()
    images = [kept_image(repository.path, commit.tree) for commit in commits]
    os.utime(note_path(images[1]), (4e9, 4e9))

    assert donor_of(repository, commits[2]) == images[2]
    images[2].unlink()
    assert donor_of(repository, commits[2]) == images[1]
    note_path(images[1]).unlink()
    assert donor_of(repository, commits[2]) == images[0]
    os.utime(note_path(images[0]), (3e9, 3e9))
    assert donor_of(repository, other) == images[0]


def test_a_damaged_pack_gives_an_error_and_no_image(repository: Repository, tmp_path: Path) -> None:
    repository.commit_tree(make_tree(tmp_path / "tree", _files(2)), "main", "m")
    for pack in (repository.path / "packs").glob("*.pack"):
        data = bytearray(pack.read_bytes())
        for at in range(1000, len(data), 50_000):
            data[at] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(data)
    repository.objects.close()
    repository.objects.refresh()

    with pytest.raises(CorruptError, match="cannot be read"):
        _image(repository, "main", tmp_path / "image.squashfs")
    assert not (tmp_path / "image.squashfs").exists()


@pytest.mark.parametrize("size", [0, 4, BLOCK_BYTES, LARGE])
def test_a_tree_that_lies_about_a_file_is_refused(repository: Repository, tmp_path: Path, size: int) -> None:
    content = random.Random(1).randbytes(1000) * (size // 1000 + 1)
    with repository.objects.writing() as writer:
        writer.add(BLOB, content)
        honest = _entry(b"honest", content)
        lying = honest._replace(name=b"lying", size=size)
        alone = Entry(b"", DIRECTORY, 0o755, 0, 0, digest=writer.add(TREE, encode([lying])))
        both = alone._replace(digest=writer.add(TREE, encode([honest, lying])))
        writer.finish()

    for root in (alone, both):
        with pytest.raises(CorruptError, match="bytes its tree says, its content has"):
            write_image(repository.objects, root, tmp_path / "image.squashfs")
        assert not (tmp_path / "image.squashfs").exists()


def test_more_owners_than_an_image_can_name_are_refused(repository: Repository, tmp_path: Path) -> None:
    entries = [Entry(b"%06d" % number, FILE, 0o644, number, 0, digest=sha256().digest()) for number in range(0x10000)]
    with repository.objects.writing() as writer:
        root = Entry(b"", DIRECTORY, 0o755, 0, 0, digest=writer.add(TREE, encode(entries)))
        fewer = root._replace(digest=writer.add(TREE, encode(entries[:-1])))
        writer.finish()

    write_image(repository.objects, fewer, tmp_path / "fewer.squashfs")
    with pytest.raises(TreeError, match="at most 65535 owners and groups, the tree has 65536"):
        write_image(repository.objects, root, tmp_path / "image.squashfs")
    assert not (tmp_path / "image.squashfs").exists()


def _entry(name: bytes, content: bytes) -> Entry:
    return Entry(name, FILE, 0o644, 0, 0, len(content), sha256(content).digest())
