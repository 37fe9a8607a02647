"""OCI images: read into commits, written from them."""
