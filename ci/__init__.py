"""The pipeline: from lesson script to verified handout.

The data flows one way: lesson, plan, execute (worker), judge, handout, report.
"""
