"""Step 4 in a browser: drop songs on a page and hear their stems. Nothing leaves this machine."""

from separation.runtime import run_script

if __name__ == "__main__":
    run_script("separation.apps.app")
