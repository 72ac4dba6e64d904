"""Steps that workers of an engine execute, while the driver keeps lease and log.

Bytes go to the worker and bytes come back: the call, pickled before anything is written, and an
answer in JSON. So whatever the engine itself raises means that the call was interrupted, and the
values that the driver gets are those that a resume would get.
"""
