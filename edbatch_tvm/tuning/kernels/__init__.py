"""Tuning of one kernel on a device: what is measured, where, and the database that keeps it.

Reading order: ``bench`` (what a kernel is called with), ``timing`` (measuring kernels side by side), ``worker`` and
``remote`` (the same in another process, on another machine), ``database`` (trials and what was kept), ``record_keys``
(the names of what is tuned), ``outcome``, ``tiles`` and ``stages`` (the searches), ``records`` (what a compilation
takes from a database).
"""
