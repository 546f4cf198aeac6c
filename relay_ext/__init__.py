"""Graph-level compiler passes over cells, one a file; :mod:`relay_ext.pipeline` names their order.

The name is kept from Relay; Relay left TVM, and its successor Relax is what the passes work on.
"""
