"""What every server of pages shares: its socket, the names it goes by, its protocol, and its end."""
