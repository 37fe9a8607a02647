"""The image repository: git for root file systems. FORMAT.md draws what it keeps on a disk.

from koguma.images import Repository
repository = Repository.init(Path("images"))
committed = repository.commit_tree(Path("root"), "compute", "first")
repository.update_labels()
"""

from koguma.images.commits import Commit
from koguma.images.errors import ImageError
from koguma.images.refs import Ref, RefKind
from koguma.images.repository import Committed, Repository

__all__ = ["Commit", "Committed", "ImageError", "Ref", "RefKind", "Repository"]
