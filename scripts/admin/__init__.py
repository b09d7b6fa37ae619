"""Administration from the command line: every change is a record in the log, sent through the admin socket."""
