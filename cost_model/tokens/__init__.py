"""Programs, schedules and hardware as tokens that a model attends over."""
