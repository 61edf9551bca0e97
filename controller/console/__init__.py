"""Consoles of servers: a screen (VNC) or a serial port, in a browser or for whoever speaks websocket.

A user asks the compute API for a URL; it carries a token that opens one console once. Whoever opens the URL gets
noVNC's page from our own listener (`pages`), which connects to our websocket (`gate`); that spends the token
(`consoles`), opens a stream to the host's channel, and copies bytes. No host listens for VNC anywhere, and we read
nothing that a guest says.
"""
