"""OCI images and docker archives: layers, whiteouts, platforms, and everything that lies."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koguma.images.errors import ImageError, LimitError, TreeError
from koguma.images.formats import export_as
from koguma.images.importing import ImportOptions, Limits, import_source
from koguma.images.oci.importing import ANNOTATIONS_NOTE, CONFIG_NOTE, DIGEST_NOTE
from koguma.images.repository import Repository
from koguma.images.trees import walk
from tests.unit.images.archives import CONFIG, DIRECTORY, HARD_LINK, INDEX, MANIFEST, SYMLINK, Layout, header, tar_of
from tests.unit.images.making import make_tree


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def _tree(repository: Repository, source: str, options: ImportOptions | None = None) -> dict[str, bytes]:
    """What an import gives: files and their content, directories with a slash."""
    commit = import_source(repository, source, "main", "m", options=options or ImportOptions()).commit
    read = repository.objects.read
    return {
        os.fsdecode(path) + ("/" if entry.kind == ord("d") else ""): read(entry.digest) if entry.size else entry.target
        for path, entry in walk(read, repository.root(commit))
    }


def _refused(repository: Repository, source: str, options: ImportOptions | None = None) -> str:
    with pytest.raises(TreeError) as caught:
        import_source(repository, source, "main", "m", options=options or ImportOptions())
    assert repository.refs.all() == []
    assert list((repository.path / "packs").iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("compression", ["", "+gzip", "+zstd"])
def test_layers_are_put_one_upon_the_other(repository: Repository, layout: Layout, compression: str) -> None:
    lower = tar_of(("etc", DIRECTORY, b""), ("etc/a", {}, b"1"), ("etc/b", {}, b"2"), ("gone/x", {}, b"x"))
    upper = tar_of(("etc/a", {}, b"new"), ("etc/.wh.b", {}, b""), (".wh.gone", {}, b""), ("c", {}, b"3"))

    source = layout.index(layout.image(lower, upper, compression=compression))

    assert _tree(repository, source) == {"etc/": b"", "etc/a": b"new", "c": b"3"}


def test_an_archive_is_read_as_its_directory(repository: Repository, layout: Layout, tmp_path: Path) -> None:
    layout.index(layout.image(tar_of(("a", {}, b"1"))))
    source = layout.archive(tmp_path / "image.tar")
    packed = tmp_path / "image.tar.gz"
    packed.write_bytes(gzip.compress((tmp_path / "image.tar").read_bytes()))

    assert _tree(repository, source) == {"a": b"1"}
    assert _tree(repository, f"oci-archive:{packed}") == {"a": b"1"}


LOWER = (("d", DIRECTORY, b""), ("d/old", {}, b"o"), ("d/sub/deep", {}, b"s"), ("f", {}, b"f"))
WHITEOUTS: dict[str, tuple[tuple[Any, ...], dict[str, bytes]]] = {
    "opaque first": (
        (("d/.wh..wh..opq", {}, b""), ("d/new", {}, b"n")),
        {"d/": b"", "d/new": b"n", "f": b"f"},
    ),
    "opaque last": (
        (("d/new", {}, b"n"), ("d/sub/new", {}, b"m"), ("d/.wh..wh..opq", {}, b"")),
        {"d/": b"", "d/new": b"n", "d/sub/": b"", "d/sub/new": b"m", "f": b"f"},
    ),
    "a whiteout hides lower layers only": (
        (("f", {}, b"mine"), (".wh.f", {}, b"")),
        {"d/": b"", "d/old": b"o", "d/sub/": b"", "d/sub/deep": b"s", "f": b"mine"},
    ),
    "a whiteout before what replaces it": (
        ((".wh.d", {}, b""), ("d", DIRECTORY, b""), ("d/new", {}, b"n")),
        {"d/": b"", "d/new": b"n", "f": b"f"},
    ),
    "a whiteout after what replaces it": (
        (("d", DIRECTORY, b""), ("d/new", {}, b"n"), (".wh.d", {}, b"")),
        {"d/": b"", "d/new": b"n", "f": b"f"},
    ),
    "a whiteout of nothing": (
        ((".wh.nothing", {}, b""), ("d/sub/.wh.deep", {}, b"")),
        {"d/": b"", "d/old": b"o", "d/sub/": b"", "f": b"f"},
    ),
    "a directory becomes a file and a file a directory": (
        (("d", {}, b"file"), ("f/in", {}, b"x")),
        {"d": b"file"},
    ),
    "a directory becomes a link": ((("d", SYMLINK | {"linkname": "f"}, b""),), {"d": b"f", "f": b"f"}),
    "AUFS's notes": (
        ((".wh..wh.aufs", {}, b""), (".wh..wh.plnk/1.2", {}, b"")),
        {"d/": b"", "d/old": b"o", "d/sub/": b"", "d/sub/deep": b"s", "f": b"f"},
    ),
}


@pytest.mark.parametrize(("upper", "expected"), WHITEOUTS.values(), ids=WHITEOUTS.keys())
def test_whiteouts_mean_what_the_specification_says(
    repository: Repository, layout: Layout, upper: tuple[Any, ...], expected: dict[str, bytes]
) -> None:
    source = layout.index(layout.image(tar_of(*LOWER), tar_of(*upper)))

    if "f/in" in {name for name, _, _ in upper}:
        # A parent that nobody named does not turn a lower file into a directory.
        assert "no directory" in _refused(repository, source)
        return
    assert _tree(repository, source) == expected


def test_a_link_to_a_lower_layer_s_file_is_that_file(repository: Repository, layout: Layout) -> None:
    upper = tar_of(("link", HARD_LINK | {"linkname": "f"}, b""))
    commit = import_source(repository, layout.index(layout.image(tar_of(*LOWER), upper)), "main", "m").commit
    links = {entry.link for _, entry in walk(repository.objects.read, repository.root(commit)) if entry.link}

    assert len(links) == 1


def test_names_in_a_layer_may_begin_at_the_root(repository: Repository, layout: Layout) -> None:
    """As kaniko and ko write them."""
    upper = tar_of(
        ("/", DIRECTORY, b""), ("/d/new", {}, b"n"), ("//d/.wh.old", {}, b""), ("/.wh.f", {}, b""),
        ("/link", HARD_LINK | {"linkname": "/d/new"}, b""),
    )  # fmt: skip
    source = layout.index(layout.image(tar_of(*LOWER), upper))

    assert _tree(repository, source) == {
        "d/": b"", "d/new": b"n", "d/sub/": b"", "d/sub/deep": b"s", "link": b"n",
    }  # fmt: skip


@pytest.mark.parametrize(
    "upper",
    [("d/sub/new", ".wh.d"), (".wh.d", "d/sub/new"), ("d/sub/new", "d/.wh..wh..opq"), ("d/.wh..wh..opq", "d/sub/new")],
    ids=" ".join,
)
def test_a_directory_that_was_hidden_has_nothing_of_the_lower_one_in_any_order(
    repository: Repository, layout: Layout, upper: tuple[str, ...]
) -> None:
    private = DIRECTORY | {"mode": 0o700, "uid": 5}
    lower = tar_of(("d", private, b""), ("d/sub", private, b""))
    source = layout.index(layout.image(lower, tar_of(*((name, {}, b"") for name in upper))))

    commit = import_source(repository, source, "main", "m").commit
    found = {path: (entry.mode, entry.uid) for path, entry in walk(repository.objects.read, repository.root(commit))}

    assert found[b"d/sub"] == (0o755, 0)
    assert found[b"d"] == ((0o700, 5) if "d/.wh..wh..opq" in upper else (0o755, 0))


def test_a_plain_tar_may_have_names_that_begin_like_whiteouts(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(tar_of((".wh.a", {}, b"x")))

    assert _tree(repository, str(tmp_path / "t.tar")) == {".wh.a": b"x"}


def test_config_and_annotations_are_notes_of_the_commit_and_come_back(
    repository: Repository, layout: Layout, tmp_path: Path
) -> None:
    config = {"Env": ["A=1"], "Cmd": ["/bin/sh"], "Labels": {"x": "y"}}
    image = layout.image(tar_of(("a", {}, b"1")), annotations={"org.example": "yes"}, config=config)
    commit = import_source(repository, layout.index(image), "main", "m").commit

    assert commit.notes[DIGEST_NOTE] == image["digest"]
    assert json.loads(commit.notes[CONFIG_NOTE])["config"] == config
    assert json.loads(commit.notes[ANNOTATIONS_NOTE]) == {"org.example": "yes"}
    repository.commit_tree(make_tree(tmp_path / "later", {"a": "2"}), "main", "a later commit")
    export_as(repository, "main", "oci", tmp_path / "out")
    again = import_source(repository, f"oci:{tmp_path / 'out'}", "again", "m").commit
    assert json.loads(again.notes[CONFIG_NOTE])["config"] == config
    assert json.loads(again.notes[ANNOTATIONS_NOTE])["org.example"] == "yes"


def test_the_platform_of_this_machine_or_the_one_asked_for_is_taken(
    repository: Repository, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    images = [layout.image(tar_of(("is", {}, name.encode())), architecture=name) for name in ("amd64", "arm64")]
    statement = layout.image(tar_of(("no", {}, b""))) | {
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    nested = layout.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [*images, statement]}, INDEX)
    source = layout.index(nested)

    assert _tree(repository, source) == {"is": b"arm64"}
    assert _tree(repository, source, ImportOptions(platform="linux/amd64")) == {"is": b"amd64"}
    with pytest.raises(TreeError, match="name one of"):
        import_source(repository, source, "main", "m", options=ImportOptions(platform="linux/riscv64"))


@pytest.mark.parametrize("nested", [False, True])
def test_the_platform_itself_comes_before_its_variants(repository: Repository, layout: Layout, nested: bool) -> None:
    images = [
        layout.image(tar_of(("is", {}, variant.encode()))) | {"platform": PLATFORM | {"variant": variant}}
        for variant in ("v2", "", "v3")
    ]
    source = layout.index(*_nested(layout, images) if nested else images)

    for platform, variant in (("linux/amd64", b""), ("linux/amd64/v2", b"v2"), ("linux/amd64/v3", b"v3")):
        assert _tree(repository, source, ImportOptions(platform=platform)) == {"is": variant}
    source = layout.index(*_nested(layout, images[::2]) if nested else images[::2])
    with pytest.raises(TreeError, match=f"name one of: .*{images[0]['digest']}"):
        import_source(repository, source, "main", "m", options=ImportOptions(platform="linux/amd64"))


PLATFORM = {"os": "linux", "architecture": "amd64"}


def _nested(layout: Layout, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An index in which an index names the images."""
    return [layout.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": images}, INDEX)]


def test_a_reference_may_mean_what_only_an_index_in_the_index_names(repository: Repository, layout: Layout) -> None:
    key = "org.opencontainers.image.ref.name"
    images = [layout.image(tar_of(("is", {}, name.encode()))) | {"annotations": {key: name}} for name in ("one", "two")]
    both = _nested(layout, images)[0] | {"annotations": {key: "both"}}
    source = layout.index(both, *_nested(layout, [both]), *_nested(layout, images[1:]))

    assert _tree(repository, f"{source}:{images[0]['digest']}") == {"is": b"one"}
    assert _tree(repository, f"{source}:two") == {"is": b"two"}
    with pytest.raises(TreeError, match="there are: both, one, "):
        import_source(repository, f"{source}:three", "main", "m")
    with pytest.raises(TreeError, match=f"name one of: one linux/amd64, two linux/amd64 .{both['digest']}"):
        import_source(repository, f"{source}:both", "main", "m")


def test_a_reference_says_which_image_is_meant(repository: Repository, layout: Layout, tmp_path: Path) -> None:
    key = "org.opencontainers.image.ref.name"
    images = [layout.image(tar_of(("is", {}, name.encode()))) for name in ("one", "two")]
    names = ("one", "localhost:5000/x:two")
    layout.index(*(image | {"annotations": {key: name}} for image, name in zip(images, names, strict=True)))
    odd = layout.path.rename(tmp_path / "with:colon")

    assert _tree(repository, f"oci:{odd}:one") == {"is": b"one"}
    assert _tree(repository, f"oci:{odd}:localhost:5000/x:two") == {"is": b"two"}
    assert _tree(repository, f"oci:{odd}:{images[1]['digest']}") == {"is": b"two"}
    with pytest.raises(TreeError, match=r"there are: localhost:5000/x:two, one"):
        import_source(repository, f"oci:{odd}:three", "main", "m")
    with pytest.raises(TreeError, match="one image must be meant"):
        import_source(repository, f"oci:{odd}", "main", "m")


def _docker(path: Path, *layers: bytes, tamper: Callable[[dict[str, Any]], None] = lambda _: None) -> str:
    """What `docker save` wrote for years: layers as <id>/layer.tar, one of them as a link to another's."""
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    tamper(config)
    data = json.dumps(config).encode()
    name = hashlib.sha256(data).hexdigest() + ".json"
    members = [(f"{number}/layer.tar", {}, layer) for number, layer in enumerate(layers)]
    listed = [{"Config": name, "RepoTags": ["x:1"], "Layers": [member for member, _, _ in members]}]
    members.append(("2/layer.tar", SYMLINK | {"linkname": "../0/layer.tar"}, b""))
    path.write_bytes(tar_of(*members, (name, {}, data), ("manifest.json", {}, json.dumps(listed).encode())))
    return f"docker-archive:{path}"


def test_a_docker_archive_is_read(repository: Repository, tmp_path: Path) -> None:
    source = _docker(tmp_path / "saved.tar", tar_of(*LOWER), tar_of((".wh.d", {}, b"")))

    assert _tree(repository, source) == {"f": b"f"}
    assert _tree(repository, source + ":x:1") == {"f": b"f"}
    with pytest.raises(TreeError, match="name one of: x:1"):
        import_source(repository, source + ":y", "main", "m")


def test_an_image_that_is_named_as_a_root_is_refused_with_the_name_it_has(
    repository: Repository, layout: Layout, tmp_path: Path
) -> None:
    layout.index(layout.image(tar_of(*LOWER)))
    archive = layout.archive(tmp_path / "image.tar").partition(":")[2]
    saved = _docker(tmp_path / "saved.tar", tar_of(*LOWER)).partition(":")[2]

    assert f"import it as oci:{layout.path}" in _refused(repository, str(layout.path))
    assert f"import it as oci-archive:{archive}" in _refused(repository, archive)
    assert f"import it as docker-archive:{saved}" in _refused(repository, saved)


def test_an_archive_may_come_by_a_pipe(repository: Repository, layout: Layout, tmp_path: Path) -> None:
    layout.index(layout.image(tar_of(("a", {}, b"1"))))
    layout.archive(tmp_path / "image.tar")
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "wb") as file:
            file.write((tmp_path / "image.tar").read_bytes())
        assert _tree(repository, f"oci-archive:/dev/fd/{reader}") == {"a": b"1"}
    finally:
        os.close(reader)


@pytest.mark.parametrize("size", [b"00040000000\0", b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7])
def test_an_archive_that_ends_within_a_file_is_refused(repository: Repository, tmp_path: Path, size: bytes) -> None:
    (tmp_path / "cut.tar").write_bytes(header(b"oci-layout", size=size) + bytes(2048))

    assert "it ends within b'oci-layout'" in _refused(repository, f"oci-archive:{tmp_path / 'cut.tar'}")


def test_a_docker_archive_whose_layer_is_another_is_refused(repository: Repository, tmp_path: Path) -> None:
    def lie(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][0] = "sha256:" + "0" * 64

    assert "digest" in _refused(repository, _docker(tmp_path / "saved.tar", tar_of(*LOWER), tamper=lie))


HOSTILE_LAYERS = {
    "outside": (("../evil", {}, b"x"),),
    "outside, from the root": (("/../evil", {}, b"x"),),
    "through a lower link": (("link/evil", {}, b"x"),),
    "a whiteout through a lower link": (("link/.wh.f", {}, b""),),
    "a whiteout of the parent": (("d/.wh...", {}, b""),),
    "a whiteout of the directory itself": (("d/.wh..", {}, b""),),
    "a whiteout without a name": (("d/.wh.", {}, b""),),
    "a whiteout outside": (("../.wh.evil", {}, b""),),
    "a whiteout that is a directory": (("d/.wh.old", DIRECTORY, b""),),
    "below a whiteout": (("d/.wh.old/x", {}, b""),),
    "a link to what is removed": ((".wh.f", {}, b""), ("link2", HARD_LINK | {"linkname": "f"}, b"")),
    "a name twice": (("x", {}, b"1"), ("x", {}, b"2")),
    "a disk": (("x", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0}, b""),),
}


@pytest.mark.parametrize("upper", HOSTILE_LAYERS.values(), ids=HOSTILE_LAYERS.keys())
def test_a_hostile_layer_is_refused(repository: Repository, layout: Layout, upper: tuple[Any, ...]) -> None:
    lower = tar_of(*LOWER, ("link", SYMLINK | {"linkname": "/etc"}, b""))
    source = layout.index(layout.image(lower, tar_of(*upper)))

    assert "(layer 2 of 2)" in _refused(repository, source)


def _blob(layout: Layout, descriptor: dict[str, Any]) -> Path:
    return layout.path / "blobs" / "sha256" / descriptor["digest"].partition(":")[2]


def _edited(layout: Layout, image: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The image with a changed manifest, whose digest is right."""
    manifest = json.loads(_blob(layout, image).read_bytes())
    change(manifest)
    return layout.document(manifest, MANIFEST)


def _set(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


MANIFEST_LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "an unknown layer type": (_set("layers", 0, "mediaType", value="application/x"), "layer must be a tar"),
    "an encrypted layer": (
        _set("layers", 0, "mediaType", value="application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
        "layer must be a tar",
    ),
    "no container image": (_set("config", "mediaType", value="application/vnd.cncf.helm.config"), "container image"),
    "a layer of another size": (_set("layers", 0, "size", value=7), "7 bytes"),
    "a size that is none": (_set("layers", 0, "size", value=-1), "size"),
    "a size that is a truth": (_set("layers", 0, "size", value=True), "size"),
    "a digest that is a path": (_set("layers", 0, "digest", value="sha256:../../../etc/passwd"), "digest"),
    "a digest of another kind": (_set("layers", 0, "digest", value="md5:" + "0" * 32), "digest"),
    "a layer that is not there": (_set("layers", 0, "digest", value="sha256:" + "0" * 64), "all its files"),
    "another schema": (_set("schemaVersion", value=1), "schemaVersion"),
    "another type": (_set("mediaType", value=INDEX), "mediaType"),
    "layers that are none": (_set("layers", value={}), "list 'layers'"),
    "a layer too few": (_set("layers", value=[]), "0 layers"),
    "annotations that are none": (_set("annotations", value=[1]), "annotations"),
    "a config of another size": (_set("config", "size", value=1), "1 bytes"),
}


@pytest.mark.parametrize(("change", "rule"), MANIFEST_LIES.values(), ids=MANIFEST_LIES.keys())
def test_a_manifest_that_lies_is_refused_by_its_rule(
    repository: Repository, layout: Layout, change: Callable[[dict[str, Any]], None], rule: str
) -> None:
    image = _edited(layout, layout.image(tar_of(*LOWER)), change)

    assert rule in _refused(repository, layout.index(image))


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
def test_a_blob_that_is_not_what_its_digest_says_is_refused(repository: Repository, layout: Layout, which: str) -> None:
    image = layout.image(tar_of(*LOWER), compression="+gzip")
    manifest = json.loads(_blob(layout, image).read_bytes())
    blob = _blob(layout, {"manifest": image, "config": manifest["config"], "layer": manifest["layers"][0]}[which])
    data = bytearray(blob.read_bytes())
    data[4 if which == "layer" else data.index(b"linux") if which == "config" else data.index(b"sha256")] ^= 1
    blob.write_bytes(data)  # in a gzip header, byte 4 is a time: the layer decompresses as before

    assert "match its digest" in _refused(repository, layout.index(image))


def test_a_layer_that_decompresses_to_something_else_is_refused(repository: Repository, layout: Layout) -> None:
    honest = layout.image(tar_of(*LOWER), compression="+gzip")
    manifest = json.loads(_blob(layout, honest).read_bytes())
    other = layout.blob(gzip.compress(tar_of(("evil", {}, b"x"))), manifest["layers"][0]["mediaType"])
    image = _edited(layout, honest, _set("layers", 0, value=other))

    message = _refused(repository, layout.index(image))
    assert "decompressed layer must match its digest" in message


def test_documents_that_are_none_are_refused(repository: Repository, layout: Layout) -> None:
    for text in ("", "[]", "null", '{"schemaVersion":2}', "{" * 5000, '{"schemaVersion":2,"manifests":[1]}'):
        (layout.path / "index.json").write_text(text)
        _refused(repository, f"oci:{layout.path}")
    layout.index()
    assert "names none" in _refused(repository, f"oci:{layout.path}")
    config = layout.document({"os": "linux", "rootfs": {"diff_ids": "all"}}, CONFIG)
    image = layout.document({"schemaVersion": 2, "config": config, "layers": []}, MANIFEST)
    assert "digests of its layers" in _refused(repository, layout.index(image))
    (layout.path / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    assert "1.0.0" in _refused(repository, f"oci:{layout.path}")
    (layout.path / "oci-layout").unlink()
    os.mkfifo(layout.path / "oci-layout")
    assert "regular files" in _refused(repository, f"oci:{layout.path}")


def test_an_index_may_not_lead_around_in_a_circle(repository: Repository, layout: Layout) -> None:
    """A digest cannot name itself, but a chain can be long."""
    here = layout.image(tar_of(*LOWER))
    for _ in range(6):
        here = layout.document({"schemaVersion": 2, "manifests": [here]}, INDEX)

    assert "nested" in _refused(repository, layout.index(here))


def test_limits_are_for_all_layers_together(repository: Repository, layout: Layout) -> None:
    layers = [tar_of((f"f{number}", {}, bytes(600))) for number in range(4)]
    source = layout.index(layout.image(*layers))

    with pytest.raises(LimitError, match="2000 bytes together"):
        import_source(repository, source, "main", "m", options=ImportOptions(limits=Limits(bytes_max=2000)))
    with pytest.raises(LimitError, match="3 entries"):
        import_source(repository, source, "main", "m", options=ImportOptions(limits=Limits(entries_max=3)))


def test_an_archive_cannot_name_files_outside_of_it(repository: Repository, tmp_path: Path) -> None:
    members = [("oci-layout", SYMLINK | {"linkname": "/etc/passwd"}, b""), ("index.json", {}, b"{}")]
    (tmp_path / "evil.tar").write_bytes(tar_of(*members))

    assert "all its files" in _refused(repository, f"oci-archive:{tmp_path / 'evil.tar'}")


# Exports


@pytest.fixture
def two(repository: Repository, tmp_path: Path) -> Repository:
    tree = make_tree(
        tmp_path / "tree", {"a": "1", "d/b": "2", "d/c": "3", "gone/x": "4", "turns": "file", "same/y": "5"}
    )
    (tree / "h1").hardlink_to(tree / "d" / "b")
    (tree / "h2").hardlink_to(tree / "d" / "b")
    (tree / "link").symlink_to("a")
    repository.commit_tree(tree, "one", "m")
    make_tree(tree, {"a": "changed", "new/z": "6"})
    (tree / "gone" / "x").unlink()
    (tree / "gone").rmdir()
    (tree / "turns").unlink()
    (tree / "turns").mkdir()
    (tree / "turns" / "in").write_text("7")
    (tree / "link").unlink()
    (tree / "link").mkdir()
    (tree / "h2").unlink()
    (tree / "h3").hardlink_to(tree / "h1")
    (tree / "d" / "c").chmod(0o600)
    repository.commit_tree(tree, "two", "m")
    return repository


@pytest.mark.parametrize("image_format", ["tar", "oci", "oci-archive"])
def test_what_is_exported_is_imported_as_the_same_tree(two: Repository, tmp_path: Path, image_format: str) -> None:
    for place in ("x", "y"):
        export_as(two, "two", image_format, tmp_path / place)
    prefix = "" if image_format == "tar" else f"{image_format}:"

    again = import_source(two, f"{prefix}{tmp_path / 'x'}", "again", "m").commit

    assert again.tree == two.resolve("two").tree
    if image_format != "oci":
        assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def _layers(path: Path) -> list[list[str]]:
    """The names in each layer of an uncompressed image."""
    index = json.loads((path / "index.json").read_bytes())

    def blob(descriptor: dict[str, Any]) -> bytes:
        return (path / "blobs" / "sha256" / descriptor["digest"][7:]).read_bytes()

    manifest = json.loads(blob(index["manifests"][0]))
    found = []
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(blob(layer))) as archive:
            found.append(archive.getnames())
    return found


def test_an_export_upon_a_base_has_what_changed_and_whiteouts(two: Repository, tmp_path: Path) -> None:
    export_as(two, "two", "oci", tmp_path / "two", base="one", compression="none")
    export_as(two, "one", "oci", tmp_path / "one", compression="none")

    lower, upper = _layers(tmp_path / "two")
    assert [lower] == _layers(tmp_path / "one")
    assert sorted(upper) == sorted(
        [".", ".wh.gone", ".wh.h2", "a", "d", "d/b", "d/c", "h1", "h3", "link", "new", "new/z", "turns", "turns/in"]
    )
    again = import_source(two, f"oci:{tmp_path / 'two'}:two", "again", "m").commit
    assert again.tree == two.resolve("two").tree


def test_a_tree_as_deep_as_a_path_can_be_is_exported_upon_another(repository: Repository, tmp_path: Path) -> None:
    options = ImportOptions(limits=Limits(depth_max=2000))
    for content in (b"one", b"two"):
        (tmp_path / "t.tar").write_bytes(tar_of(("d/" * 1950 + "file", {}, content)))
        import_source(repository, str(tmp_path / "t.tar"), content.decode(), "m", options=options)

    export_as(repository, "two", "oci", tmp_path / "out", base="one", compression="none")

    assert len(_layers(tmp_path / "out")[1]) == 1952


def test_an_export_upon_an_equal_base_has_an_empty_layer(two: Repository, tmp_path: Path) -> None:
    export_as(two, "two", "oci", tmp_path / "two", base="two", compression="none")

    assert _layers(tmp_path / "two")[1] == []
    assert import_source(two, f"oci:{tmp_path / 'two'}", "again", "m").commit.tree == two.resolve("two").tree


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_a_layer_does_not_depend_on_the_number_of_processors(
    two: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    make_tree(tmp_path / "tree", {"large": os.urandom(1000) * 9000, "other": os.urandom(3_000_000)})
    two.commit_tree(tmp_path / "tree", "large", "m")
    for processors in (1, 2, 7):
        monkeypatch.setattr("os.cpu_count", lambda count=processors: count)
        export_as(two, "large", "oci-archive", tmp_path / str(processors), compression=compression)

    assert len({(tmp_path / str(processors)).read_bytes() for processors in (1, 2, 7)}) == 1


def test_a_name_that_a_layer_cannot_tell_is_refused(repository: Repository, tmp_path: Path) -> None:
    repository.commit_tree(make_tree(tmp_path / "one", {"a": "1"}), "one", "m")
    repository.commit_tree(make_tree(tmp_path / "two", {"d/.wh.a": "1"}), "two", "m")

    for base in ("", "one"):
        with pytest.raises(TreeError, match=r"may not begin with \.wh\."):
            export_as(repository, "two", "oci", tmp_path / "out", base=base)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "repository", "two"]


def test_an_export_says_what_it_cannot_do(two: Repository, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    with pytest.raises(ImageError, match="squashfs, erofs, tar, oci, oci-archive, got 'ext4'"):
        export_as(two, "two", "ext4", tmp_path / "x")
    with pytest.raises(ImageError, match="zstd, gzip, none"):
        export_as(two, "two", "oci", tmp_path / "x", compression="xz")
    with pytest.raises(ImageError, match="for OCI images"):
        export_as(two, "two", "tar", tmp_path / "x", base="one")
    for image_format in ("tar", "oci", "oci-archive"):
        with pytest.raises(ImageError, match="may not overwrite"):
            export_as(two, "two", image_format, tmp_path / "there")
    assert (tmp_path / "there").read_text() == "precious"
    assert not (tmp_path / "x").exists()
