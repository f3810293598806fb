# A hint when memory runs low: on Binder a kernel that needs more than 2 GB is ended without a message.
c.InteractiveShellApp.extensions.append("confprune_edu.memory")  # noqa: F821
