"""Records in, answers out: lines, JSON and CSV, files that grow and can be resumed.

The command line, a cluster's files and a data frame all take this path.
"""
