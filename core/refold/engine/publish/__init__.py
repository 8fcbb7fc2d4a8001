"""What analysts see: views, who may read them, and the switch to other builds."""
