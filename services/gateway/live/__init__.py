"""How does live speech reach inference and come back? A WebSocket, passed on as it comes."""
