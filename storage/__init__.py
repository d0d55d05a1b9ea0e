"""What a registry keeps, and how. It knows no HTTP and no framework; docs/design.md draws it.

repository.py   the protocol that everything above works with: RepositoryReader, RepositoryWriter, and wrappers
local.py        LocalRepository: the protocol over one StorageDriver
content.py      ContentStore: owns the driver, hands out repositories
driver.py       StorageDriver: the contract; drivers/ has ours, testing.py checks anybody's
errors.py       everything that is raised
"""
