"""The command line; installed as `dualgnn_dgl.cli` (see package_dir in setup.cfg).

One file a verb.
"""
