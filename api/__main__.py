"""``python -m kneepoint``: the command, where its script is not on the path."""

from kneepoint.command_line import main

main()
