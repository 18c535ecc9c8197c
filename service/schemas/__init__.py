"""The JSON of the HTTP API, version 1: what comes in is checked strictly, what goes out only ever gains members.

Latencies and durations are seconds, sizes bytes, times UTC in ISO 8601.
"""
