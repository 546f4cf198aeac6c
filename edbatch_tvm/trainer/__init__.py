"""Training of workloads on labelled data files: ``edbatch train``.

Read in this order: ``options.py``, ``dropout.py``, ``examples.py`` (instances with losses, and those that accuracy is
measured on), ``optimizers.py``, ``interrupts.py``, ``run.py`` (epochs, checkpoints).
"""
