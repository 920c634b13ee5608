"""The pipeline: from lesson script to verified handout.

The data flows one way: course, plan, engine (worker, execute, kernel), check, handout, report.
"""
