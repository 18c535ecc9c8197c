"""Measured programs from elsewhere: Ansor and TenSet logs, MetaSchedule databases, our own exports.

Everything is read line by line from text. Nothing that a file holds is executed: no pickle, no TVMScript.
"""
