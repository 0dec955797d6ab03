# SPDX-License-Identifier: Apache-2.0
"""A back-end in a process of its own, so that no other stage holds the interpreter's lock it needs.

`client` is the stage's side, `worker` the process, `channel` and `codec` what goes between them.
"""
