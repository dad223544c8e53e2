"""Values and exceptions to bytes and back (`codec`, `remote_failures`), and the messages of the wire (`v1`)."""
