"""Everything that touches the machine: settings, logs, metrics, connections, migrations, the embedded stack, the CLI.

Stages get what they need from here handed in by thin entry points; nothing in a `domain/` folder imports it.
"""
