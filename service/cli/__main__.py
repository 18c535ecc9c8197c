from crosstune.service.cli import main

main()
