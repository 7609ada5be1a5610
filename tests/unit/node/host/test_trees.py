import os

from noderuntime.node.host.trees import remove_tree


def make_deep(top, levels):
    """Make a tree deeper than a path may be long, as a container can."""
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for level in range(levels):
        os.close(os.open(f"file-{level}", os.O_CREAT, dir_fd=fd))
        os.mkdir("directory", dir_fd=fd)
        inner = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


async def test_a_tree_of_any_depth_goes(tmp_path):
    make_deep(tmp_path / "deep", 3000)
    await remove_tree(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []


async def test_links_are_removed_and_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/out").symlink_to(tmp_path / "kept")
    await remove_tree(tmp_path / "tree")
    await remove_tree(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/file").exists()


async def test_what_cannot_be_there_is_missing(tmp_path):
    (tmp_path / "file").touch()
    await remove_tree(tmp_path / "file/below")
    await remove_tree(tmp_path / "none/below")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
