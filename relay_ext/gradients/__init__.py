"""Gradients of cells: a cell's adjoint is a cell again, and what weights get is summed over nodes.

Read in this order: ``rules.py``, the rules of operators (``elementwise.py``, ``views.py``, ``reductions.py``,
``products.py``), ``reverse.py``, ``adjoint_cells.py``.
"""
