from camelsight.commands.paper import main

if __name__ == "__main__":
    main()
