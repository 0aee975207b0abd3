from studies.cli import main

if __name__ == "__main__":  # spawned workers import this module under another name
    main()
