"""``python -m cra_mcp``: the command line."""

from cra_mcp.faces.launch import main

if __name__ == "__main__":
    main()
