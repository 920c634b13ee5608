"""The programs that the ranks of a parallel lesson run, and what starts them."""

from parallel.launch import launch

__all__ = ["launch"]
