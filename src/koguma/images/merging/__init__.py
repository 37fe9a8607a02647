"""Three-way merges of root file systems: two trees and what both came from give a third, and a list of conflicts.

Works on stored trees; knows nothing of branches, commits and edit sessions, which are `koguma.images.merge`'s.
"""

from koguma.images.merging.conflicts import Conflict, Note, Problem
from koguma.images.merging.trees import Merged, merge_trees

__all__ = ["Conflict", "Merged", "Note", "Problem", "merge_trees"]
