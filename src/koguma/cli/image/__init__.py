"""`koguma image`: works on a repository directory, without any server, as git does. `group` lists its commands."""
