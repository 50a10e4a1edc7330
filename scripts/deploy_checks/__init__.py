"""Do the files of `deploy/` say what they should? Each module looks for one kind of fault, and needs no engine."""
