"""`adaptd top`: a terminal dashboard of a daemon's sessions, a process of its own.

board      what is shown of each session, without a terminal
table      the scrolling table; draws only what is seen
dialogs    the questions before something is changed
app        the screen and its keys
"""
