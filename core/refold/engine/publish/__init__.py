"""Publishing metrics: the views that analysts read, their privileges, and the switch (cut-over) to other builds."""
