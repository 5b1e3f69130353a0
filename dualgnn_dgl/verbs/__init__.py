"""The verbs: what the command line does, as functions. `import dualgnn_dgl` offers them lazily."""
