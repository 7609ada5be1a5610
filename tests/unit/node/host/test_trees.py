import os

from noderuntime.node.host.trees import remove_tree


def make_deep(top, levels):
    """Create a tree whose paths exceed PATH_MAX, as a container can."""
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for level in range(levels):
        os.close(os.open(f"file-{level}", os.O_CREAT, dir_fd=fd))
        os.mkdir("directory", dir_fd=fd)
        inner = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


async def test_remove_tree_of_any_depth(tmp_path):
    make_deep(tmp_path / "deep", 3000)
    await remove_tree(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []


async def test_remove_tree_does_not_follow_symlinks(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/out").symlink_to(tmp_path / "kept")
    await remove_tree(tmp_path / "tree")
    await remove_tree(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/file").exists()


async def test_remove_tree_below_a_missing_directory_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    await remove_tree(tmp_path / "file/below")
    await remove_tree(tmp_path / "none/below")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
