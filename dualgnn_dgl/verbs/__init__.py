"""The verbs: one function for each command, for the command line, notebooks and programs.

Each is in a file of its own and offered by `dualgnn_dgl` under its name, see `dualgnn_dgl.PUBLIC`.
It takes a data set in memory or a path, reports progress to one type of callback
(`progress.Report`), and returns a typed result. It prints nothing.
"""
