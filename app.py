"""The same in a browser: drop songs on a page and hear them come apart. Nothing leaves this machine."""

from separation.apps.server.run import run

if __name__ == "__main__":
    run()
