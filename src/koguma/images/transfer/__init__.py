"""Moving commits between repositories: over HTTP, to S3-compatible stores and to directories.

`remotes` names other repositories, `catalogue` knows what one of them holds, `walk` finds what is missing, `fetching`
and `pushing` move it, `receiving` and `server` are the other end. Blobs themselves are moved by the backends.
"""
