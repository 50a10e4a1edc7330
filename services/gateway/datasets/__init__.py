"""What recordings are there, and which of them belong together?"""
