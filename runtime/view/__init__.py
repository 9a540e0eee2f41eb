"""`adaptd view`: sessions for people to look at; a process of its own on the tap.

story      a session as curves: belief with its band, returns, actions, latency, marks
page       the curves as one HTML file that needs no server (assets/)
bridge     live, over Foxglove's WebSocket protocol
named      one tick with names: for Foxglove's plots, and as JSON for PlotJuggler
scene      the simulated robot in 3-D
layout     the panels of Foxglove and Lichtblick for a session
"""
