"""Schedules for CPUs (LLVM)."""
