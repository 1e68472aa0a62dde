"""Where candidates are measured: in this process, in processes of this machine, or on a cluster through Ray Tune."""
